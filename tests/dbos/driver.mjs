// SPDX-License-Identifier: MIT
// One version of DBOSClient, driven by lines of JSON: a request on standard input, its answer on a
// file descriptor of its own (what the SDK prints goes to standard output). Requests run at the same time.
//
//   node driver.mjs DESCRIPTOR FOLDER_OF_NODE_MODULES VERSION
//   {"n":1,"url":"postgres://...","method":"enqueue","args":[...]}  ->  {"n":1,"value":...} or
//   {"n":1,"error":{"name","message","code","data","dbos"}}
//
// A method is one of DBOSClient, or "handle.getResult" and "handle.getStatus" with a workflow id. A
// handle comes back as {"handle":ID}, a Date goes both ways as {"$date":MS}.
import { createRequire } from 'node:module';
import { writeSync } from 'node:fs';
import { createInterface } from 'node:readline';

const [, , descriptor, folder, version] = process.argv;
const { DBOSClient } = createRequire(`${folder}/`)(`dbos-${version}`);
const clients = new Map();

function client(url) {
  if (!clients.has(url)) clients.set(url, DBOSClient.create({ systemDatabaseUrl: url }));
  return clients.get(url);
}

function revive(v) {
  if (Array.isArray(v)) return v.map(revive);
  if (v === null || typeof v !== 'object') return v;
  if ('$date' in v) return new Date(v.$date);
  if ('$undefined' in v) return undefined;
  return Object.fromEntries(Object.entries(v).map(([k, x]) => [k, revive(x)]));
}

function plain(v) {
  if (v instanceof Date) return { $date: v.getTime() };
  if (typeof v === 'bigint') return Number(v);
  if (v instanceof Error) return failure(v);
  if (Array.isArray(v)) return v.map(plain);
  if (v === null || typeof v !== 'object') return v;
  if (typeof v.getResult === 'function') return { handle: v.workflowID };
  return Object.fromEntries(Object.entries(v).map(([k, x]) => [k, plain(x)]));
}

function failure(e) {
  return { name: e.name, message: e.message, code: e.code, data: e.data, dbos: e.dbosErrorCode, type: e.constructor?.name };
}

async function run({ url, method, args }) {
  const c = await client(url);
  const given = revive(args);
  if (method.startsWith('handle.')) {
    const [id, ...rest] = given;
    return await c.retrieveWorkflow(id)[method.slice('handle.'.length)](...rest);
  }
  const value = c[method](...given);
  if (typeof value?.[Symbol.asyncIterator] !== 'function') return await value;
  const all = [];
  for await (const one of value) all.push(one);
  return all;
}

async function obey(line) {
  const request = JSON.parse(line);
  let answer;
  try {
    answer = { n: request.n, value: plain(await run(request)) };
  } catch (e) {
    answer = { n: request.n, error: failure(e) };
  }
  writeSync(Number(descriptor), JSON.stringify(answer) + '\n');
}

const lines = createInterface({ input: process.stdin });
lines.on('line', obey);
lines.on('close', () => process.exit(0));
