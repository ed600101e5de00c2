/**
 * The SDK of network functions: everything an NF file imports, as `import { ... } from 'nfactor'`.
 */

export { z } from 'zod'
export { AliasClaim, defineNf } from './definition.ts'
export type {
  AliasKeys, ClusterView, Emitter, FlowTimer, FlowView, HeldPackets, NfContext, NfDefinition, NfMethods, Upgrade,
} from './definition.ts'
export { Verdict } from './verdict.ts'
export { Direction, type Packet } from '../packet/packet-view.ts'
export {
  address, array, bool, bytes, chain, enumeration, i16, i32, i64, i8, inExtent, pair, struct, text, time, u16, u32, u64, u8,
  formatAddress, internal,
} from '../memory/struct.ts'
export type {
  AddressView, ArrayView, BytesView, ChainView, ExtentView, PairView, PlainStateOf, StateOf, Struct, View,
} from '../memory/struct.ts'
export { IpProtocol } from '../wire/ipv4.ts'
export { TcpFlag, TcpOption, sequenceDistance } from '../wire/tcp.ts'
export type { TimeUs } from '../base/clock.ts'
