/**
 * Packet watch: sees what becomes of packets inside a node, for traces and captures. A node has none but while somebody looks: engine
 * and switch check for one once per batch, and where a packet is dropped or held, never for a packet that simply goes on.
 *
 * It is called between packets, may not change anything, and may be slow.
 */

export interface PacketWatch {
  /** The chain is about to run the packet of this descriptor. */
  running(d: number): void
  /** The chain has run it: it is among the outputs, dropped, held, or taken by the node. */
  ran(d: number): void
  /** The node itself drops the packet in this slot. */
  dropped(slot: number, reason: string): void
  /** A switch keeps the packet in this slot for a flow that nobody serves yet, in this phase of its entry. */
  held(slot: number, phase: number): void
  /** A runtime has collected an output: it leaves from the replica, behind its step. */
  stepped(d: number, replica: number): void
}
