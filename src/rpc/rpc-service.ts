/**
 * RPC service: methods of ours for a service of the protocol. A method gets a message and returns what its answer is made from, or a promise
 * of it; a method that answers with a stream is an async generator. `signal` says that nobody waits any more.
 */

import type { DescService } from '@bufbuild/protobuf'
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect'

export type CallContext = Pick<HandlerContext, 'signal'>

export type RpcMethods<T extends DescService> = {
  readonly [K in keyof ServiceImpl<T>]?: ServiceImpl<T>[K] extends (request: infer R, context: HandlerContext) => infer A
    ? (request: R, context: CallContext) => A : never
}

export type RpcMethod = (request: object, context: CallContext) => unknown

export interface RpcService {
  readonly service: DescService
  readonly methods: Readonly<Record<string, RpcMethod>>
}

/** Methods that are left out are unimplemented. */
export function serve<T extends DescService>(service: T, methods: RpcMethods<T>): RpcService {
  return { service, methods: methods as Readonly<Record<string, RpcMethod>> }
}
