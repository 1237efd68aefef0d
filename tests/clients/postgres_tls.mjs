// node-postgres, let in by SCRAM inside TLS. The server is the one of libpq's
// environment; SSL_CERT_FILE holds whom to trust.
import { readFileSync } from 'node:fs';
import pg from 'pg';

const ca = readFileSync(process.env.SSL_CERT_FILE, 'utf8');
for (const enableChannelBinding of [false, process.env.BINDING === 'require']) {
  const client = new pg.Client({ ssl: { ca }, enableChannelBinding });
  await client.connect();
  const { rows } = await client.query('SELECT current_user::text AS who');
  if (rows[0].who !== 'postgres') throw new Error(JSON.stringify(rows));
  const code = await client.query('SELECT 1 AS forbidden').then(() => 'not refused', (error) => error.code);
  if (code !== '42501') throw new Error(code);
  await client.end();
}
console.log('node-postgres');
