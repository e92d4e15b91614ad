export interface GoalRow {
  readonly key: string;
  readonly value: number;
  readonly text: string;
  readonly limit: string;
  readonly isMet: boolean;
}
export interface Bound {
  readonly atLeast?: number;
  readonly atMost?: number;
  readonly show: (value: number) => string;
  readonly text?: string;
}
export const times: (x: number) => string;
export const percent: (x: number) => string;
export class Goals {
  constructor(note: (line: string) => void);
  readonly rows: GoalRow[];
  readonly missed: GoalRow[];
  add(key: string, value: number, bound: Bound): GoalRow;
}
