// How many guesses a step takes: as many as pay, by how often they have been right and what their rows cost. It decides how fast a reply comes, never what it says.
import { KIND, type Price } from "./drafters.ts";
import type { StepCosts } from "./step-costs.ts";

/** Tokens that are guessed at a time, at most: a pass takes one row more. */
export const MOST_DRAFTED = 15;

/** Credit of guesses, in single steps: what they may lose. At first so much … */
const FREE_STEPS = 1;
/** … at most so much of what earlier turns have gained when another begins … */
const CARRIED = 6;
/** … a little more with every token … */
const STEPS_PER_TOKEN = 0.01;
/** … and what they gain, up to so much. */
const MOST_CREDIT = 8;
/** Rates and times are not exact: of what seems to gain less than this, as much loses. */
const LEAST_GAIN = 1.05;
/** How fast older outcomes fade. */
const MEMORY = 0.9;
/** After so many turns without guesses all begins anew, as if nothing were known: what was given up may be worth it by now. */
const MOST_TURNS = 32;
/** Outcomes that stand for what a session has not seen yet; as many of them were right as of all sessions' guesses, at first three of four. */
const PRIOR = 2;
const PRIOR_RATE = 0.75;
/** Behind single tokens each session begins anew: a copy goes on behind nearly all, any other text behind few. */
const PRIOR_RATE_OF_SINGLE = 0.6;

/** A guess that comes to be looked at this seldom is worth no row, … */
const UNLIKELY = 0.02;
/** … but rows up to a kernel's tile of four may cost no more than one. */
const TILE = 3;

/** So many steps with guesses, at first two and then twice as many each time, and the next goes without: what that takes is what guesses are measured against, and it grows with the context. */
const MOST_IN_A_ROW = 32;

/** So many steps are waited for at most before costs are looked at again: other turns may have earned more. */
const MOST_WAIT = 16;

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
    const prior = kind === KIND.single ? PRIOR_RATE_OF_SINGLE : (this.#all?.rate(kind) ?? PRIOR_RATE);
    return (right + PRIOR * prior) / (right + wrong + PRIOR);
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

/** Where a turn's guesses stand in a step. */
export interface Place extends Price {
  readonly acceptance: Acceptance;
  kind: number;
  /** Rows of other turns in the step. */
  others: number;
}

/** What guesses of one kind of drafter have lost and gained on this engine, and how often they were right. */
export class DraftBudget {
  readonly acceptance: Acceptance = new Acceptance();
  readonly #costs: StepCosts;
  #credit = FREE_STEPS;
  /** Steps with guesses since the last without. */
  #sinceNone = 0;
  #mostInARow = 2;
  /** Turns since the last guess. */
  #turns = 0;

  constructor(costs: StepCosts) {
    this.#costs = costs;
  }

  /** A turn begins. @returns whether all begins anew: what guesses take, too */
  begin(): boolean {
    this.#credit = Math.min(this.#credit, CARRIED);
    if (++this.#turns <= MOST_TURNS) return false;
    this.#turns = 0;
    this.#credit = Math.max(this.#credit, FREE_STEPS);
    this.acceptance.fade(0);
    return true;
  }

  /** @returns how many guesses to check in the next step, `room` at most */
  most(place: Place, room: number): number {
    const { acceptance, kind, others } = place;
    if (this.#sinceNone >= this.#mostInARow) return 0;
    const single = this.#costs.ms(1 + others);
    const first = acceptance.rate(kind);
    const next = kind === KIND.single ? acceptance.rate(KIND.usual) : first; // behind a right guess a single token is a pair
    let best = 0;
    let bestSpeed = LEAST_GAIN; // tokens of all turns in the time of a step without guesses, over those of that step
    let expected = 0;
    let chance = 1;
    let cheapest = 0;
    let least = Number.POSITIVE_INFINITY;
    let canPay = false;
    for (let n = 1; n <= room; n++) {
      chance *= n === 1 ? first : next;
      if (n > TILE && chance < UNLIKELY) break;
      expected += chance;
      const cost = this.#cost(n, place, single);
      if (cost < least) [cheapest, least] = [n, cost];
      canPay ||= 1 + n / (1 + others) > LEAST_GAIN * cost;
      const speed = (1 + expected / (1 + others)) / cost;
      if (speed > bestSpeed && cost - 1 <= this.#credit) [best, bestSpeed] = [n, speed]; // all of them may be wrong
    }
    // now and then a guess is checked although it does not seem to pay: the text may have changed. Not where it would not pay if all were right, nor behind single tokens: nearly all have come before, and would take what the others may lose
    return best === 0 && canPay && kind !== KIND.single && least - 1 + place.msOfPrompt / single <= this.#credit ? cheapest : best;
  }

  /** Takes in a step with guesses: how many, and how many of them were right. */
  count(place: Place, drafted: number, accepted: number): void {
    const { acceptance, kind } = place;
    const isSingle = kind === KIND.single;
    acceptance.count(kind, isSingle ? 1 : drafted, isSingle ? Math.min(1, accepted) : accepted);
    if (isSingle && accepted > 0 && drafted > 1) acceptance.count(KIND.usual, drafted - 1, accepted - 1);
    const single = this.#costs.ms(1 + place.others);
    // a prompt is read once for a whole reply: what was saved may go for it, but guesses that are right go on behind a long one too
    this.#credit -= Math.max(0, Math.min(place.msOfPrompt / single, this.#credit - FREE_STEPS));
    this.#earn(STEPS_PER_TOKEN * (1 + accepted) + accepted / (1 + place.others) - (this.#cost(drafted, place, single) - 1));
    this.#sinceNone++;
    this.#turns = 0;
  }

  /** Takes in so many steps without guesses. */
  pass(steps: number): void {
    this.#earn(STEPS_PER_TOKEN * steps);
    if (this.#sinceNone >= this.#mostInARow) this.#mostInARow = Math.min(MOST_IN_A_ROW, 2 * this.#mostInARow);
    this.#sinceNone = 0;
  }

  /** @returns in how many steps a few guesses can be paid: until then nobody need look for any. 0: now */
  wait(place: Place): number {
    const single = this.#costs.ms(1 + place.others);
    let least = Number.POSITIVE_INFINITY;
    for (let n = 1; n <= TILE; n++) least = Math.min(least, this.#cost(n, place, single));
    const missing = (least - 1 - this.#credit) / STEPS_PER_TOKEN;
    return Math.max(0, Math.min(MOST_WAIT, Math.ceil(missing)));
  }

  #earn(steps: number): void {
    this.#credit = Math.min(MOST_CREDIT, this.#credit + steps);
  }

  /** Time of a step with n guesses, in steps without, which take `single` ms. */
  #cost(n: number, { others, msPerToken, msBefore }: Place, single: number): number {
    return (this.#costs.ms(1 + others + n) + msBefore + n * msPerToken) / single;
  }
}
