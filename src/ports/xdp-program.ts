/**
 * The program that an AF_XDP port ties to its interface: every frame goes to the socket of the queue that it came by.
 *
 *     r2 = context->rx_queue_index        the context (xdp_md) is in r1; the queue's number is 16 bytes into it
 *     r1 = map                            queue number → socket, given as a descriptor; takes two places
 *     r3 = XDP_PASS                       what becomes of a frame whose queue has no socket in the map: the host's own stack gets it
 *     call bpf_redirect_map               r0 = the verdict: XDP_REDIRECT, or what r3 says
 *     exit                                with r0
 *
 * An instruction is 8 bytes: operation, registers (destination in the low four bits, source in the high ones), offset of 16 bits,
 * number of 32 bits. Sources: the kernel's Documentation/bpf/standardization/instruction-set.rst, linux/bpf.h.
 */

import { scratch } from './sys.ts'

/** Operations: how they are made of class, size, mode and source in the instruction set. */
const LOAD_WORD = 0x61 // BPF_LDX | BPF_MEM | BPF_W: destination = *(u32 *)(source + offset)
const LOAD_DOUBLE = 0x18 // BPF_LD | BPF_IMM | BPF_DW: destination = 64 bits, of this instruction and the next place
const MOVE = 0xb7 // BPF_ALU64 | BPF_MOV | BPF_K: destination = number
const CALL = 0x85 // BPF_JMP | BPF_CALL: r0 = helper(r1, r2, r3 ...)
const EXIT = 0x95 // BPF_JMP | BPF_EXIT

/** As the source of LOAD_DOUBLE: the number is the descriptor of a map, for which the kernel puts the map. */
const MAP_DESCRIPTOR = 1
/** Where `xdp_md` has the number of the receive queue. */
const RX_QUEUE_INDEX = 16
const XDP_PASS = 2
const HELPER_REDIRECT_MAP = 51

/** The program, for a map that this descriptor stands for. */
export function redirectProgram(map: number): DataView {
  const instructions: readonly (readonly [operation: number, destination: number, source: number, offset: number, value: number])[] = [
    [LOAD_WORD, 2, 1, RX_QUEUE_INDEX, 0],
    [LOAD_DOUBLE, 1, MAP_DESCRIPTOR, 0, map],
    [0, 0, 0, 0, 0],
    [MOVE, 3, 0, 0, XDP_PASS],
    [CALL, 0, 0, 0, HELPER_REDIRECT_MAP],
    [EXIT, 0, 0, 0, 0],
  ]
  const program = scratch(8 * instructions.length)
  instructions.forEach(([operation, destination, source, offset, value], index) => {
    program.setUint8(index * 8, operation)
    program.setUint8(index * 8 + 1, destination | (source << 4))
    program.setInt16(index * 8 + 2, offset, true)
    program.setInt32(index * 8 + 4, value, true)
  })
  return program
}
