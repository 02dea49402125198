// The host names of the test networks, as a name server of the consortium would resolve them: all on this machine. To be imported
// before whatever opens connections.

import dns from 'node:dns';

const HERE = '127.0.0.1';
const isOurs = (host) => typeof host === 'string' && host.endsWith('.example.com');

const { lookup } = dns;
dns.lookup = (host, ...rest) => lookup(isOurs(host) ? HERE : host, ...rest);

const { lookup: promised } = dns.promises;
dns.promises.lookup = (host, ...rest) => promised(isOurs(host) ? HERE : host, ...rest);
