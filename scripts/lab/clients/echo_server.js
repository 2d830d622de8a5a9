// Sends back what it receives on the unix socket argv[2], until SIGTERM.
const server = require('net').createServer({allowHalfOpen: true}, (connection) => connection.pipe(connection));
process.on('SIGTERM', () => process.exit(0));
server.listen(process.argv[2]);
