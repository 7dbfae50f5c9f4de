// The views, in the order of the menu. `feature`: what the server must have for it; `key`: after `g`.
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

const view = (at, name, page, key, feature, icon = at) => ({ at, name, page, key, feature, icon });

export const GROUPS = [
  {
    name: "Now",
    views: [
      view("", "Overview", Overview, "o", "", "overview"),
      view("live", "Live", Live, "l"),
      view("requests", "Requests", Requests, "r"),
    ],
  },
  {
    name: "Serving",
    views: [
      view("models", "Models and replicas", Models, "m"),
      view("explain", "Routing", Explain, "x", "explain"),
      view("rollouts", "Rollouts", Later, "", "rollouts"),
    ],
  },
  {
    name: "Quality",
    views: [
      view("evals", "Evals and drift", Later, "", "evals"),
      view("guards", "Guardrails", Later, "", "guards"),
      view("caches", "Caches", Later, "", "cache"),
    ],
  },
  {
    name: "Money",
    views: [view("cost", "Cost", Cost, "c"), view("limits", "Budgets and limits", Limits, "b")],
  },
  {
    name: "Access",
    views: [view("keys", "Keys and teams", Keys, "k"), view("audit", "Audit", Audit, "a")],
  },
  {
    name: "Build",
    views: [view("playground", "Playground", Playground, "p", "playground"), view("config", "Configuration", Config, "f", "config")],
  },
];

const BY_PLACE = new Map(GROUPS.flatMap(({ views }) => views).map((one) => [one.at, one]));
const NOWHERE = view("nowhere", "Not found", NotFound);

export const viewOf = (parts) => BY_PLACE.get(parts[0] ?? "") ?? NOWHERE;
