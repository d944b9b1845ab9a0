// Prometheus' text format, and figures over the time between two scrapes.

const LINE = /^([\w:]+)(?:\{(.*)\})? (\S+)$/;
const LABEL = /(\w+)="((?:\\.|[^"\\])*)"/g;

/** [{name, labels, value}] of a scrape. */
export function parse(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const match = line.startsWith("#") ? null : LINE.exec(line);
    if (match) samples.push({ name: match[1], labels: Object.fromEntries([...(match[2] ?? "").matchAll(LABEL)].map(([, k, v]) => [k, v])), value: Number(match[3]) });
  }
  return samples;
}

/** Sum of all samples of a name, of one model or of all. */
export function sum(samples, name, model) {
  return samples.filter((s) => s.name === name && (model === undefined || s.labels.model === model)).reduce((total, s) => total + s.value, 0);
}

/** The growth of a counter per second; a server that was restarted counts from zero. */
export function rate(before, now, name, seconds) {
  const grown = sum(now, name) - sum(before, name);
  return seconds > 0 ? Math.max(0, grown) / seconds : 0;
}

/** A quantile of what a histogram counted between two scrapes, null if nothing. */
export function quantile(before, now, name, q) {
  const counts = (samples) => {
    const buckets = new Map();
    for (const { name: other, labels, value } of samples) {
      if (other === `${name}_bucket`) buckets.set(labels.le, (buckets.get(labels.le) ?? 0) + value);
    }
    return buckets;
  };
  const old = counts(before);
  const buckets = [...counts(now)].map(([le, value]) => [le === "+Inf" ? Infinity : Number(le), value - (old.get(le) ?? 0)]).sort((a, b) => a[0] - b[0]);
  const total = buckets.at(-1)?.[1] ?? 0;
  if (total <= 0) return null;
  let low = 0;
  let below = 0;
  for (const [high, count] of buckets) {
    if (count >= q * total) {
      if (high === Infinity) return low;
      return low + (high - low) * ((q * total - below) / (count - below));
    }
    low = high;
    below = count;
  }
  return low;
}
