/** The parts of the kernel fast-path.as.ts, in their order. */

export const FastPathPart = { monitor: 0, firewall: 1, http: 2 } as const
