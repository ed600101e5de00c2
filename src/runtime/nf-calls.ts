/**
 * NF calls: methods of a chain's network functions that are called without a packet that runs, and what becomes of one that throws. An
 * assertion is a defect of ours and ends the runtime; anything else is the NF's, reported once, and its flow goes on by policy.
 */

import { AssertionError } from '../base/assert.ts'
import { FlowFlag, FlowRecord } from '../flow/flow-record.ts'
import type { Arena } from '../memory/arena.ts'
import type { ChainNf } from '../nf/chain.ts'

export interface NfCallsOptions {
  readonly arena: Arena
  readonly nfs: readonly ChainNf[]
  /** After an NF threw on a flow: drop the flow's packets, or go on without that NF. */
  readonly nfError: 'drop' | 'bypass'
  /** An NF has thrown; `isFirst`: it never did before. */
  failed(nf: number, error: unknown, isFirst: boolean): void
}

export class NfCalls {
  readonly #options: NfCallsOptions
  readonly #failed = new Set<number>()

  constructor(options: NfCallsOptions) {
    this.#options = options
  }

  /** Calls each NF that has the method, with its part of the flow's state. */
  each(record: number, method: 'deallocateFlowState' | 'flowMovedIn' | 'flowMovedOut'): void {
    const { nfs } = this.#options
    for (let i = 0; i < nfs.length; i++) {
      const nf = nfs[i] as ChainNf
      if (nf.methods[method] === undefined) continue
      nf.state.o = record + nf.stateOffset
      try {
        nf.methods[method](nf.state)
      } catch (error) {
        this.report(i, error)
      }
    }
  }

  /** What an NF has thrown. */
  report(nf: number, error: unknown): void {
    if (error instanceof AssertionError) throw error
    const isFirst = !this.#failed.has(nf)
    this.#failed.add(nf)
    this.#options.failed(nf, error, isFirst)
  }

  /** An NF has failed on a flow, which goes on by policy. */
  failOn(record: number, nf: number, error: unknown): void {
    this.report(nf, error)
    const { arena: { u8, u16 }, nfError } = this.#options
    if (nfError === 'drop') {
      u8[record + FlowRecord.flags] |= FlowFlag.dropAll
    } else {
      u8[record + FlowRecord.flags] |= FlowFlag.bypass
      u16[(record + FlowRecord.bypass) >> 1] |= 1 << nf
    }
  }
}
