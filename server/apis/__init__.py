"""APIs with converters of their own: from their requests to jobs, and jobs in their words."""
