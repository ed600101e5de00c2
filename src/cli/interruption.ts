/**
 * Interruption: Ctrl-C and SIGTERM end what a command waits for, in good order.
 */

export function interruption(): { readonly signal: AbortSignal, end(): void } {
  const controller = new AbortController()
  const abort = (): void => { controller.abort() }
  process.once('SIGINT', abort)
  process.once('SIGTERM', abort)
  return {
    signal: controller.signal,
    end() {
      process.off('SIGINT', abort)
      process.off('SIGTERM', abort)
    },
  }
}
