// Reads an AsyncAPI document by the project's own parser; prints what it has against it.
import { readFile } from 'node:fs/promises';
import { Parser } from '@asyncapi/parser';

const text = await readFile(process.argv[2], 'utf8');
const { document, diagnostics } = await new Parser().parse(text);
for (const { severity, message, path } of diagnostics) {
  console.log(['error', 'warning', 'information', 'hint'][severity], path.join('.'), message);
}
console.log(document === undefined ? 'invalid' : `valid ${document.version()}`);
