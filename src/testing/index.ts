/**
 * The package export `nfactor/testing`: the test kit for authors of network functions. Frames and whole conversations from
 * plain options, a runner that puts them through a chain and shows what came of them, and the contract suite.
 */

export * from './address-bytes.ts'
export * from './packet-builder.ts'
export * from './tcp-conversation.ts'
export * from './run-packets.ts'
export * from './test-runtime.ts'
export * from './probe-nfs.ts'
export * from './synthetic-traces.ts'
export * from './mutate-packet.ts'
export * from './contract.ts'
