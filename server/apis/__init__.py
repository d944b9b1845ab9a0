"""OpenAI's Responses and Anthropic's Messages: their requests as chats, and jobs in their words."""
