// One streamed answer into a message.

import { stream } from "./api.js";
import { t } from "./i18n.js";
import { chatBody } from "./request.js";

function takeCalls(message, deltas) {
  message.calls ??= [];
  for (const delta of deltas) {
    const call = (message.calls[delta.index] ??= { id: "", name: "", arguments: "" });
    if (delta.id) call.id = delta.id;
    if (delta.function?.name) call.name += delta.function.name;
    if (delta.function?.arguments) call.arguments += delta.function.arguments;
  }
}

/**
 * Fill `message`, the last of `conversation`'s open branch, from the model. `run`: {controller, progress}.
 * Calls `changed` at every piece. Never throws: a failure is in message.error, what came before it stays.
 */
export async function generate(conversation, message, run, changed) {
  const started = performance.now();
  try {
    const body = chatBody(conversation, message.model, message.parent);
    const request = { ...body, stream: true, stream_options: { include_usage: true }, return_progress: true };
    for await (const event of stream("v1/chat/completions", request, run.controller.signal)) {
      const choice = event.choices?.[0];
      const delta = choice?.delta ?? {};
      const { prompt_progress: progress } = event;
      if (progress?.total) run.progress = t("chat.reading", { done: progress.processed, total: progress.total });
      if (delta.reasoning_content) message.reasoning = (message.reasoning ?? "") + delta.reasoning_content;
      if (delta.content) {
        if (message.reasoning) message.thinkingMs ??= performance.now() - started;
        // Some templates leave a line break before the text.
        message.content = message.content ? message.content + delta.content : delta.content.trimStart();
      }
      if (delta.tool_calls) takeCalls(message, delta.tool_calls);
      if (delta.content || delta.reasoning_content || delta.tool_calls) message.firstMs ??= performance.now() - started;
      if (choice?.finish_reason) message.finish = choice.finish_reason;
      if (event.timings && !progress) message.timings = event.timings;
      if (event.warnings?.length) message.warnings = event.warnings;
      changed();
    }
  } catch (error) {
    if (error.name === "AbortError") message.finish = "stopped";
    else message.error = error.message;
  }
  if (message.reasoning) message.thinkingMs ??= performance.now() - started;
}
