// How many guesses a step takes: as many as pay, by how often they have been right and what their rows cost. It decides how fast a reply comes, never what it says.
import type { StepCosts } from "./step-costs.ts";

/** Tokens that are guessed at a time, at most: a pass takes one row more. */
export const MOST_DRAFTED = 15;

/** Credit of guesses, in single steps: what they may lose. At first so much … */
const FREE_STEPS = 1.5;
/** … at most so much of what earlier turns have gained when another begins … */
const CARRIED = 6;
/** … a little more with every token … */
const STEPS_PER_TOKEN = 0.015;
/** … and what they gain, up to so much. */
const MOST_CREDIT = 8;
/** How fast older outcomes fade. */
const MEMORY = 0.9;
/** Outcomes that stand for what a session has not seen yet; as many of them were right as of all sessions' guesses, at first three of four. */
const PRIOR = 2;
const PRIOR_RATE = 0.75;

/** How often guesses have been right: fades, so that it follows the text. */
export class Acceptance {
  readonly #right: number[] = [];
  readonly #wrong: number[] = [];
  readonly #all: Acceptance | undefined;

  /** @param all outcomes of all sessions, this one among them */
  constructor(all?: Acceptance) {
    this.#all = all;
  }

  /** @returns the share of guesses of a kind that are right, where those before them were */
  rate(kind: number): number {
    const [right, wrong] = [this.#right[kind] ?? 0, this.#wrong[kind] ?? 0];
    return (right + PRIOR * (this.#all?.rate(kind) ?? PRIOR_RATE)) / (right + wrong + PRIOR);
  }

  /** A new turn may be of another kind: what was seen counts for less. */
  fade(by: number): void {
    for (const counts of [this.#right, this.#wrong]) for (const [kind, count] of counts.entries()) counts[kind] = (count ?? 0) * by;
  }

  /** Takes in that of `drafted` guesses the first `accepted` were right. */
  count(kind: number, drafted: number, accepted: number): void {
    this.#all?.count(kind, drafted, accepted);
    const isWrong = accepted < drafted;
    let fade = 1;
    for (let i = 0; i < accepted + (isWrong ? 1 : 0); i++) fade *= MEMORY;
    this.#right[kind] = (this.#right[kind] ?? 0) * fade + accepted;
    this.#wrong[kind] = (this.#wrong[kind] ?? 0) * fade + (isWrong ? 1 : 0);
  }
}

/** Where a step's guesses stand. */
export interface Place {
  readonly acceptance: Acceptance;
  readonly kind: number;
  /** Rows of other turns in the step. */
  readonly others: number;
  /** What making a guess takes. */
  readonly msPerToken: number;
}

/** What guesses of one kind of drafter have lost and gained on this engine, and how often they were right. */
export class DraftBudget {
  readonly acceptance: Acceptance = new Acceptance();
  readonly #costs: StepCosts;
  #credit = FREE_STEPS;

  constructor(costs: StepCosts) {
    this.#costs = costs;
  }

  /** A turn begins. */
  begin(): void {
    this.#credit = Math.min(this.#credit, CARRIED);
  }

  /** @returns how many guesses to check in the next step, `room` at most */
  most(place: Place, room: number): number {
    const { acceptance, kind, others } = place;
    const rate = acceptance.rate(kind);
    let best = 0;
    let bestSpeed = 1; // tokens of all turns in the time of a step without guesses, over those of that step
    let expected = 0;
    let chance = 1;
    let cheapest = 0;
    let least = Number.POSITIVE_INFINITY;
    for (let n = 1; n <= room; n++) {
      chance *= rate;
      expected += chance;
      const cost = this.#cost(n, place);
      if (cost < least) [cheapest, least] = [n, cost];
      const speed = (1 + expected / (1 + others)) / cost;
      if (speed > bestSpeed && cost - 1 <= this.#credit) [best, bestSpeed] = [n, speed]; // all of them may be wrong
    }
    // now and then a guess is checked although it does not seem to pay: the text may have changed
    return best === 0 && least - 1 <= this.#credit ? cheapest : best;
  }

  /** Takes in a step: how many guesses it had, none perhaps, and how many of them were right. */
  count(place: Place, drafted: number, accepted: number): void {
    let gained = STEPS_PER_TOKEN * (1 + accepted);
    if (drafted > 0) {
      place.acceptance.count(place.kind, drafted, accepted);
      gained += accepted / (1 + place.others) - (this.#cost(drafted, place) - 1);
    }
    this.#credit = Math.min(MOST_CREDIT, this.#credit + gained);
  }

  /** Time of a step with n guesses, in steps without. */
  #cost(n: number, { others, msPerToken }: Place): number {
    return (this.#costs.ms(1 + others + n) + n * msPerToken) / this.#costs.ms(1 + others);
  }
}
