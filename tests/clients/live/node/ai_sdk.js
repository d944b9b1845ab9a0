// ai_sdk.js URL MODEL: what the AI SDK's providers do with the server, one line of JSON for each question.
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateObject, generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai';

const [url, id] = process.argv.slice(2);
const options = { baseURL: `${url}/v1`, apiKey: 'none' };
const openai = createOpenAI(options);
const compatible = createOpenAICompatible({
  ...options, name: 'ggserve', includeUsage: true, supportsStructuredOutputs: true,
});
const models = {
  anthropic: createAnthropic(options)(id),
  responses: openai(id),
  chat: openai.chat(id),
  completion: openai.completion(id),
  compatible: compatible(id),
};
const schema = jsonSchema({
  type: 'object',
  properties: { town: { type: 'string', enum: ['Paris', 'Rome'] } },
  required: ['town'],
  additionalProperties: false,
});
const weather = tool({
  description: 'Weather of a town', inputSchema: schema, execute: async ({ town }) => `sunny in ${town}`,
});

async function parts(stream) {
  const kinds = new Set();
  for await (const part of stream.fullStream) {
    if (part.type === 'error') throw part.error;
    kinds.add(part.type);
  }
  return [...kinds];
}

for (const [name, model] of Object.entries(models)) {
  const common = { model, maxRetries: 0, maxOutputTokens: 100 };
  const questions = {
    text: async () => (await generateText({ ...common, prompt: 'Say hello' })).text,
    stream: () => parts(streamText({ ...common, prompt: 'Say hello' })),
  };
  if (name !== 'completion') {
    const asking = { ...common, prompt: 'How is the weather?', tools: { weather } };
    questions.tools = async () => {
      const stepAfter = ({ stepNumber }) => ({ toolChoice: stepNumber ? 'auto' : 'required' });
      const result = await generateText({ ...asking, stopWhen: stepCountIs(2), prepareStep: stepAfter });
      return result.steps[0].toolResults.map((found) => found.output);
    };
    questions.toolStream = () => parts(streamText({ ...asking, toolChoice: 'required' }));
    questions.object = async () => (await generateObject({ ...common, prompt: 'A town', schema })).object;
  }
  for (const [question, ask] of Object.entries(questions)) {
    let result;
    try {
      result = { value: await ask() };
    } catch (error) {
      result = { error: `${error.message} ${error.cause ?? ''}` };
    }
    console.log(JSON.stringify({ name, question, ...result }));
  }
}
