// Upload a file as a stream, with Node.js: node upload.mjs FILE URL
// NODE_EXTRA_CA_CERTS=ca.pem lets Node.js trust a server whose authority it does not know.

import { createReadStream } from "node:fs";
import { Readable } from "node:stream";

const [file, url] = process.argv.slice(2);

const response = await fetch(url, {
  method: "PUT",
  // Errors as documents for programs.
  headers: { accept: "application/problem+json" },
  body: Readable.toWeb(createReadStream(file)),
  duplex: "half",
});
if (!response.ok) {
  const problem = await response.json();
  console.error(`${problem.title}: ${problem.detail}`);
  process.exit(1);
}
console.log(`Written, and safe: ${response.headers.get("server-timing") ?? "in less than a millisecond"}`);
