// Answers each request on the unix socket argv[2] with its body, until SIGTERM.
const server = require('http').createServer((request, response) => request.pipe(response));
process.on('SIGTERM', () => process.exit(0));
server.listen(process.argv[2]);
