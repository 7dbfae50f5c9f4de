// Views of rooms that are not there, or not for everybody, say so.
import { html } from "../vendor/preact-htm.js";
import { Empty, Head, Words } from "../parts.js";
import { ROOT } from "../route.js";

const ROOMS = {
  rollouts: "Canary steps with their gates, what changed, and the way back. This server has no rollouts yet: a new version of a model is a change of the configuration file and a reload.",
  evals: "Scores by suite and by version, and how far traffic has moved from what was tested. This server runs no evals yet.",
  guards: "What guards saw, blocked and would have blocked, with their false alarms. This server has no guards yet.",
  caches: "Hits, savings and wrong hits of the answer caches. This server has no answer cache yet; what engines found in their prefix caches is under Models and replicas.",
  "": "This server does not watch its gateway.",
  live: "This server does not watch its gateway.",
  requests: "Single requests are not kept on this server: see `store.traces` in the configuration.",
  models: "This server does not watch its gateway.",
  explain: "Where a request would go, and why it would not go elsewhere. This server cannot be asked here; `penstock route explain` tells the same in a terminal.",
  playground: "One prompt, several models side by side. This server cannot reach its gateway from the console.",
  config: "What the server runs with, and what another file would change. This server does not show it here; use `penstock check` and `penstock config diff`.",
};

export function Later({ room }) {
  return html`<${Head} title=${room.name} /><section class="panel"><${Empty} title="Not there on this server"><${Words} text=${ROOMS[room.at]} /></${Empty}></section>`;
}

export function Closed({ room, me }) {
  const why = room.house && me.org ? `It is about all organisations, and you look after \`${me.org}\` alone.` : `Your role, ${me.role}, may not ${room.act}.`;
  return html`<${Head} title=${room.name} /><section class="panel"><${Empty} title="Not for you"><${Words} text=${why} /></${Empty}></section>`;
}

export function NotFound() {
  return html`<${Head} title="Not found" /><section class="panel"><${Empty} title="There is no such view"><a href=${ROOT}>Go to the overview.</a></${Empty}></section>`;
}
