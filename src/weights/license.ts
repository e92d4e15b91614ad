// What a model's card says of its licence. Knows three places that tell it, no network.

/** @returns the licence's name: "other" says less than the name beside it */
export function licenseOf({ license, name }: { readonly license: unknown; readonly name: unknown }): string | undefined {
  const text = license === "other" && typeof name === "string" && name !== "" ? name : license;
  return typeof text === "string" && text !== "" && text.length <= 200 ? text : undefined;
}

/** @param card a README with a head in YAML between two lines of dashes, of which two plain fields are read */
export function licenseOfCard(card: string): string | undefined {
  const head = /^---\r?\n([\s\S]*?)\r?\n---/.exec(card)?.[1] ?? "";
  const field = (key: string): string | undefined =>
    head
      .split("\n")
      .find((line) => line.startsWith(`${key}:`))
      ?.slice(key.length + 1)
      .trim()
      .replace(/^(["'])(.*)\1$/, "$2");
  return licenseOf({ license: field("license"), name: field("license_name") });
}
