// SPDX-License-Identifier: MIT
// An engine of the DBOS SDK beside ours: one workflow, "js_greet", and its queue.
//
//   node sdk_engine.mjs DESCRIPTOR FOLDER_OF_NODE_MODULES VERSION URL APPLICATION
//
// Writes "ready" to the descriptor once launched; ends when its standard input does.
import { createRequire } from 'node:module';
import { writeSync } from 'node:fs';

const [, , descriptor, folder, version, url, application] = process.argv;
const { DBOS } = createRequire(`${folder}/`)(`dbos-${version}`);

DBOS.registerWorkflow(
  async (name) => {
    const text = await DBOS.runStep(async () => `hello ${name}`, { name: 'compose' });
    return { text, by: 'sdk' };
  },
  { name: 'js_greet' },
);
DBOS.setConfig({ name: application, systemDatabaseUrl: url, runAdminServer: false, logLevel: 'info' });
await DBOS.launch();
if (DBOS.registerQueue) await DBOS.registerQueue('js');
writeSync(Number(descriptor), 'ready\n');
process.stdin.resume();
process.stdin.on('end', async () => {
  await DBOS.shutdown();
  process.exit(0);
});
