export interface Point {
  readonly x: number;
  readonly y: number;
  readonly series: string;
  readonly title: string;
}
export function roofline(chart: {
  readonly title: string;
  readonly about: string;
  readonly points: readonly Point[];
  readonly slopes: readonly (readonly [string, number])[];
  readonly flats: readonly (readonly [string, number])[];
}): string;
export function bars(chart: {
  readonly title: string;
  readonly about: string;
  readonly unit: string;
  readonly series: readonly string[];
  readonly groups: readonly { readonly name: string; readonly values: readonly (number | undefined)[] }[];
}): string;
