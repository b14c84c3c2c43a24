// Every codec a browser can send, forced, and decoded by a viewer.

import { check, equal, test } from '../lib/suite.mjs';

const CODECS = { chromium: ['VP8', 'VP9', 'H264', 'AV1'], firefox: ['VP8', 'VP9', 'AV1'] };

for (const [kind, codecs] of Object.entries(CODECS)) {
  for (const codec of codecs) {
    test(`${kind} publishes and decodes ${codec}`, { browsers: [kind] }, async (t) => {
      const tab = await t.stage(kind);
      const how = { api: t.api, codec };
      const tracks = await tab.run(({ api, codec }) => stage.publish({ api, id: 8, codec, kinds: ['video'] }), how);
      const [seen] = await tab.run((how) => stage.enjoy(how), { api: t.api, as: 'view', tracks, id: 8, frames: 20 });
      const sent = await codecOf(tab, 'pub', 'outbound-rtp');
      const got = await codecOf(tab, 'view', 'inbound-rtp');
      equal([sent, got], [codec, codec], 'the codecs sent and received');
      t.note(`${seen.width}x${seen.height}, ${seen.took} ms to 20 frames`);
    });
  }
}

test('chromium sends Opus within RED and it is heard', {}, async (t) => {
  const tab = await t.stage('chromium');
  const how = { id: 9, kinds: ['audio'], red: true };
  const tracks = await tab.run((how) => stage.publish(how), { api: t.api, ...how });
  await tab.run((how) => stage.enjoy(how), { api: t.api, as: 'view', tracks, id: 9 });
  const sent = await codecOf(tab, 'pub', 'outbound-rtp');
  const got = await codecOf(tab, 'view', 'inbound-rtp');
  // A server may decline RED; what counts is that both ends agree and the note is heard.
  check(['red', 'opus'].includes(sent), `the publisher sends ${sent}`);
  equal(got, sent, 'the codec received');
  t.note(`the statistics name ${sent}`);
});

async function codecOf(tab, as, type) {
  const rows = await tab.run(
    ([as, type]) => stage.until({ as }, (rows) => rows.some((row) => row.type === type && row.codec)),
    [as, type],
  );
  return rows.find((row) => row.type === type).codec;
}
