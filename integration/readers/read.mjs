// Reads what integration/differential_test.go sends, one "<kind> <hex of the bytes>" a line, and writes a line with what Node makes of it.
import { createInterface } from 'node:readline'
import { parse } from 'node:querystring'

const hex = (text) => Buffer.from(text, 'utf8').toString('hex')

// grouped writes parameters as name=value,value;..., the values in their order.
function grouped(pairs) {
  const byName = new Map()
  for (const [name, value] of pairs) byName.set(hex(name), [...(byName.get(hex(name)) ?? []), hex(value)])
  return [...byName].map(([name, values]) => `${name}=${values.join(',')}`).sort().join(';')
}

// canonical writes a value so that equal values of different languages look the same.
function canonical(value) {
  if (typeof value === 'string') return `"${hex(value)}"`
  if (typeof value === 'number') {
    const bits = Buffer.alloc(8)
    bits.writeDoubleBE(value === 0 ? 0 : value)
    return bits.toString('hex')
  }
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`
  if (value === null || typeof value === 'boolean') return String(value)
  return `{${Object.keys(value).map((name) => `${hex(name)}:${canonical(value[name])}`).sort().join(',')}}`
}

const readers = {
  query: (text) => grouped(new URLSearchParams(`?${text}`)), // which takes one ? off
  // parse puts a value that is there once by itself, and has no prototype.
  querystring: (text) => grouped(Object.entries(parse(text, '&', '=', { maxKeys: 0 })).flatMap(([name, value]) => [value].flat().map((v) => [name, v]))),
  json: (text) => canonical(JSON.parse(text)),
}

for await (const line of createInterface({ input: process.stdin })) {
  const [kind, bytes] = line.split(' ')
  try {
    console.log(readers[kind](new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.from(bytes ?? '', 'hex'))))
  } catch (error) {
    console.log(`error ${error.name}`)
  }
}
