// `serve SOCKET`: sends back what it receives, until SIGTERM. `ask SOCKET`: connections that expect exactly their own bytes back.
const [verb, path] = Deno.args;
const CONNECTIONS = 6, ROUNDS = 150;

async function serve() {
  Deno.addSignalListener('SIGTERM', () => Deno.exit(0));
  for await (const connection of Deno.listen({transport: 'unix', path}))
    connection.readable.pipeTo(connection.writable).catch((problem) => console.error(problem));
}

function message(who, number) {
  const size = number % 5 === 4 ? 1 + (who * 7919 + number * 104729) % 100000 : 1 + (who * 31 + number * 17) % 300;
  const bytes = new Uint8Array(size);
  for (let at = 0; at < size; ++at) bytes[at] = (at * 7 + (at >> 8) + who * 13 + number) & 255;
  return bytes;
}

async function send(connection, bytes) {
  for (let sent = 0; sent < bytes.length;) sent += await connection.write(bytes.subarray(sent));
}

async function receive(connection, size) {
  const bytes = new Uint8Array(size);
  for (let received = 0; received < size;) {
    const more = await connection.read(bytes.subarray(received));
    if (more === null) throw new Error(`the end after ${received} of ${size} bytes`);
    received += more;
  }
  return bytes;
}

async function converse(who) {
  const connection = await Deno.connect({transport: 'unix', path});
  for (let number = 0; number < ROUNDS; ++number) {
    const sent = message(who, number), [, got] = await Promise.all([send(connection, sent), receive(connection, sent.length)]);
    if (got.some((byte, at) => byte !== sent[at])) throw new Error(`connection ${who}: answer ${number} of ${sent.length} bytes differs`);
  }
  await connection.closeWrite();
  if (await connection.read(new Uint8Array(1)) !== null) throw new Error(`connection ${who}: bytes after the end`);
  connection.close();
}

if (verb === 'serve') await serve();
else await Promise.all(Array.from({length: CONNECTIONS}, (_, who) => converse(who)));
