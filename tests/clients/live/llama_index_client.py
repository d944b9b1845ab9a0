"""Questions that LlamaIndex asks a server, in its own environment: `llama_index_client.py URL`.

Prints a line of JSON for each.
"""

import json
import sys

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from questions import MODEL, QUESTION, Town, get_weather

model = OpenAILike(
    model=MODEL,
    api_base=f"{sys.argv[1]}/v1",
    api_key="none",
    is_chat_model=True,
    is_function_calling_model=True,
    context_window=8192,
    max_tokens=100,
    timeout=600,
)
question = [ChatMessage(role="user", content=QUESTION)]
called = model.chat_with_tools(
    [FunctionTool.from_defaults(get_weather)], "How is the weather in Paris?", tool_required=True
)
[call, *_] = model.get_tool_calls_from_response(called)
results = {
    "text": model.complete(QUESTION).text,
    "chat": model.chat(question).message.content,
    "stream": list(model.stream_chat(question))[-1].message.content,
    "object": model.as_structured_llm(Town).complete(QUESTION).raw.model_dump(),
    "tool": {"name": call.tool_name, "arguments": call.tool_kwargs},
}
for name, value in results.items():
    print(json.dumps({"question": name, "value": value}))
