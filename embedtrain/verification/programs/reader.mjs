// Embed texts with transformers.js: `node reader.mjs '{"modules": ..., "folder": ..., "dtype": ..., "windows": ...}'`.
// Speaks as reader.py does, with what users of transformers.js would write.

import { createRequire } from "node:module";
import path from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

console.log = console.info = console.error; // libraries print
process.on("uncaughtException", (error) => {
  console.error(`${error}`.split("\n")[0]); // the last words, which the report shows
  process.exit(1);
});
const wanted = JSON.parse(process.argv[2]);
const from = createRequire(path.join(path.resolve(wanted.modules), "package.json"));
const library = await import(pathToFileURL(from.resolve("@huggingface/transformers")));
const { AutoModel, AutoTokenizer, env } = library;

const folder = path.resolve(wanted.folder);
env.allowRemoteModels = false;
env.localModelPath = path.dirname(folder);
const name = path.basename(folder);
const model = await AutoModel.from_pretrained(name, { dtype: wanted.dtype });
const tokenizer = await AutoTokenizer.from_pretrained(name);

async function encode(texts, mode) {
  const limits = { padding: true, truncation: true, max_length: wanted.windows[mode] };
  const { sentence_embedding } = await model(await tokenizer(texts, limits));
  const { buffer, byteOffset, byteLength } = Float32Array.from(sentence_embedding.data);
  const vectors = Buffer.from(buffer, byteOffset, byteLength).toString("base64");
  return { shape: sentence_embedding.dims, vectors };
}

function ids(texts, mode) {
  const limits = { padding: false, truncation: true, max_length: wanted.windows[mode], return_tensor: false };
  return { ids: texts.map((text) => tokenizer(text, limits).input_ids) };
}

const say = (content) => process.stdout.write(`${JSON.stringify(content)}\n`);
say({ version: env.version });
for await (const line of createInterface({ input: process.stdin })) {
  const { do: what, texts, mode } = JSON.parse(line);
  try {
    say(what === "ids" ? ids(texts, mode) : await encode(texts, mode));
  } catch (error) {
    say({ error: `${error}` }); // whatever a reader throws, it is its answer
  }
}
