// So many things at a time, whatever each takes.

/** @returns a function that starts what it is given, in the order of its calls and never more than `count` at a time, and gives what comes of it */
export function lanes(count) {
  let free = count;
  const waiting = [];
  return async (run) => {
    if (free > 0) free--;
    else await new Promise((start) => waiting.push(start));
    try {
      return await run();
    } finally {
      const next = waiting.shift();
      if (next) next();
      else free++;
    }
  };
}
