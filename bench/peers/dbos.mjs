// SPDX-License-Identifier: MIT
// DBOS Transact doing what bench/durable.c's `flows` does; prints one line of JSON.
//   node dbos.mjs URL STEPS IN_FLIGHT SECONDS POOL
// The workflow is called directly and awaited, which is the shortest way the SDK has.
import { DBOS } from 'dbos-5.3.0'; // @dbos-inc/dbos-sdk

const [url, steps, inFlight, seconds, pool] = process.argv.slice(2);
DBOS.setConfig({
  name: 'bench', systemDatabaseUrl: url, systemDatabasePoolSize: Number(pool), logLevel: 'error',
});
const nothing = async () => 1;
const flow = DBOS.registerWorkflow(async (n) => {
  for (let i = 0; i < n; i++) await DBOS.runStep(nothing, { name: 'step' });
  return 1;
}, { name: 'dbos_flow' });

const round = async (ms) => {
  const took = [], end = performance.now() + ms;
  await Promise.all(Array.from({ length: Number(inFlight) }, async () => {
    while (performance.now() < end) {
      const began = performance.now();
      if (await flow(Number(steps)) !== 1) throw new Error('wrong result');
      took.push((performance.now() - began) * 1000);
    }
  }));
  return took;
};

await DBOS.launch();
await round(seconds * 250);
const began = performance.now();
const took = (await round(seconds * 1000)).sort((a, b) => a - b);
const spent = (performance.now() - began) / 1000;
const quantile = (q) => Math.round(took[Math.floor(q * (took.length - 1))]);
console.log(JSON.stringify({
  workflows: took.length, seconds: spent, workflows_per_s: took.length / spent,
  steps_per_s: took.length * steps / spent, p50_us: quantile(0.5), p99_us: quantile(0.99),
}));
await DBOS.shutdown();
process.exit(0);
