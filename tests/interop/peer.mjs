// A js-libp2p host that knows nothing of potd: dials a node, identifies and pings it, and gossips both ways.
// Usage: node peer.mjs MULTIADDR TOPIC. Prints one line for each thing done; ends when its input does.

// js-libp2p is written for Node 22; this is all that 20 lacks.
Promise.withResolvers ??= () => {
  let resolve, reject
  const promise = new Promise((yes, no) => { resolve = yes; reject = no })
  return { promise, resolve, reject }
}

const { createLibp2p } = await import('libp2p')
const { tcp } = await import('@libp2p/tcp')
const { noise } = await import('@chainsafe/libp2p-noise')
const { yamux } = await import('@chainsafe/libp2p-yamux')
const { identify } = await import('@libp2p/identify')
const { ping } = await import('@libp2p/ping')
const { gossipsub } = await import('@libp2p/gossipsub')
const { multiaddr } = await import('@multiformats/multiaddr')

const [place, topic] = process.argv.slice(2)
const text = new TextDecoder()
const until = async (claim) => {
  while (!await claim()) await new Promise((resolve) => setTimeout(resolve, 50))
}

const host = await createLibp2p({
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify(), ping: ping(), pubsub: gossipsub({ allowPublishToZeroTopicPeers: true }) }
})

const connection = await host.dial(multiaddr(place))
console.log(`dialled ${connection.encryption} ${connection.multiplexer}`)

let protocols = []
await until(async () => {
  protocols = (await host.peerStore.get(connection.remotePeer)).protocols
  return protocols.includes('/potd/hello/1')
})
console.log(`identified ${protocols.filter((name) => name.startsWith('/meshsub/') || name === '/potd/hello/1').join(' ')}`)

await host.services.ping.ping(connection.remotePeer)
console.log('pinged')

const pubsub = host.services.pubsub
pubsub.addEventListener('message', (event) => {
  const message = event.detail
  if (message.topic === topic) console.log(`heard ${message.type} ${text.decode(message.data)}`)
})
pubsub.subscribe(topic)
await until(() => pubsub.getSubscribers(topic).length > 0)
console.log('joined')
// The other side's subscription may be known before there is a stream to answer it on.
await until(async () => (await pubsub.publish(topic, new TextEncoder().encode('from js'))).recipients.length > 0)
console.log('published')

process.stdin.resume()
process.stdin.on('end', async () => { await host.stop(); process.exit(0) })
