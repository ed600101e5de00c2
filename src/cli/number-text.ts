/**
 * Numbers as people read them: thousands separated, bytes and durations with a unit that fits.
 */

const whole = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 })

/** `1,234,567` */
export function countText(count: number): string {
  return whole.format(count)
}

/** `1 flow`, `2 flows` */
export function countOf(count: number, one: string, many = `${one}s`): string {
  return `${countText(count)} ${count === 1 ? one : many}`
}

/** `999 bytes`, `1.23 kB`, `45.6 MB`: decimal units, three digits. */
export function bytesText(bytes: number): string {
  if (bytes < 1000) return countOf(bytes, 'byte')
  const units = ['kB', 'MB', 'GB', 'TB', 'PB']
  let value = bytes / 1000
  let unit = 0
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000
    unit++
  }
  return `${digits(value)} ${units[unit]}`
}

/** `0.12 ms`, `3.4 s`, `2 min 5 s`, `1 h 3 min`, `2 d 4 h`. */
export function durationText(seconds: number): string {
  if (seconds < 0.9995) return `${digits(seconds * 1000)} ms`
  if (seconds < 59.95) return `${digits(seconds)} s`
  const units = [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]] as const
  const all = Math.round(seconds)
  const first = units.findIndex(([, length]) => all >= length)
  const [unit, length] = units[first] as (typeof units)[number]
  const [nextUnit, nextLength] = units[first + 1] as (typeof units)[number]
  const rest = Math.floor((all % length) / nextLength)
  return `${countText(Math.floor(all / length))} ${unit}${rest === 0 ? '' : ` ${rest} ${nextUnit}`}`
}

/** `1,234 packets/s`, `1.23 M packets/s` */
export function rateText(perSecond: number, unit: string): string {
  if (perSecond < 10_000) return `${countText(perSecond)} ${unit}/s`
  return perSecond < 999_500 ? `${digits(perSecond / 1000)} k ${unit}/s` : `${digits(perSecond / 1e6)} M ${unit}/s`
}

/** Three digits, or more before the point. */
function digits(value: number): string {
  if (value >= 99.95) return countText(value)
  return value >= 9.995 ? value.toFixed(1) : value.toFixed(2)
}
