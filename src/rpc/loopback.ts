/**
 * Loopback: addresses of a machine that nobody reaches from elsewhere.
 */

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host)
}
