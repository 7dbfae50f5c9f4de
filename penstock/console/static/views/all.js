// The views, in the order of the menu. `key`: after `g`. `feature`: what the server must have for it; `act`: what somebody
// must be allowed to; `house`: it is about all organisations.
import { Audit } from "./audit.js";
import { Config } from "./config.js";
import { Cost } from "./cost.js";
import { Explain } from "./explain.js";
import { Keys } from "./keys.js";
import { Later, NotFound } from "./later.js";
import { Limits } from "./limits.js";
import { Live } from "./live.js";
import { Models } from "./models.js";
import { Overview } from "./overview.js";
import { Playground } from "./playground.js";
import { Requests } from "./requests.js";

const REQUESTS = "see requests, models and replicas";
const COSTS = "see costs and budgets";

const view = (at, name, page, more) => ({ at, name, page, key: "", feature: "", act: "use this API", house: false, icon: at, ...more });
const later = (at, name, feature) => view(at, name, Later, { feature });

export const GROUPS = [
  {
    name: "Now",
    views: [
      view("", "Overview", Overview, { key: "o", feature: "overview", house: true, icon: "overview" }),
      view("live", "Live", Live, { key: "l", feature: "live", act: REQUESTS }),
      view("requests", "Requests", Requests, { key: "r", feature: "requests", act: REQUESTS }),
    ],
  },
  {
    name: "Serving",
    views: [
      view("models", "Models and replicas", Models, { key: "m", feature: "fleet", act: REQUESTS, house: true }),
      view("explain", "Routing", Explain, { key: "x", feature: "explain", act: REQUESTS }),
      later("rollouts", "Rollouts", "rollouts"),
    ],
  },
  {
    name: "Quality",
    views: [later("evals", "Evals and drift", "evals"), later("guards", "Guardrails", "guards"), later("caches", "Caches", "cache")],
  },
  {
    name: "Money",
    views: [
      view("cost", "Cost", Cost, { key: "c", feature: "costs", act: COSTS }),
      view("limits", "Budgets and limits", Limits, { key: "b", act: COSTS, house: true }),
    ],
  },
  {
    name: "Access",
    views: [
      view("keys", "Keys and teams", Keys, { key: "k", act: "see organisations, teams and keys" }),
      view("audit", "Audit", Audit, { key: "a", act: "see the audit log", house: true }),
    ],
  },
  {
    name: "Build",
    views: [
      view("playground", "Playground", Playground, { key: "p", feature: "playground", act: REQUESTS }),
      view("config", "Configuration", Config, { key: "f", feature: "config", act: "see the configuration", house: true }),
    ],
  },
];

/** Whether the server has it. */
export const there = (one, me) => !one.feature || me.features.includes(one.feature);

/** Whether somebody may see it: their role may, and it is not about everybody while they look after one organisation. */
export const open = (one, me) => me.may.includes(one.act) && !(one.house && me.org);

const BY_PLACE = new Map(GROUPS.flatMap(({ views }) => views).map((one) => [one.at, one]));
const NOWHERE = view("nowhere", "Not found", NotFound, {});

export const viewOf = (parts) => BY_PLACE.get(parts[0] ?? "") ?? NOWHERE;
