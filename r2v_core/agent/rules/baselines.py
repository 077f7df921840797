"""What a learned router has to beat: one number a step, a plain regression, and coarser ways of asking for help.

All are calibrated and swept as the router is.
"""

from __future__ import annotations

from r2v_core.agent.rules.scored import FAILURE, thresholded

LOGPROB = thresholded(
    "logprob_router",
    lambda features: -features["logprob_chosen"],
    title="asks where the action that would be played is improbable",
    colour="#332288",
    marker="<",
    line="--",
    score_title="−log p of the chosen action (nats)",
)
CONSISTENCY = thresholded(
    "consistency_router",
    lambda features: 1.0 - features["consistency"],
    title="asks where the small model's samples disagree (self-consistency)",
    colour="#882255",
    marker=">",
    line="--",
    score_title="Share of samples that are not the most frequent action",
)
LOGISTIC = thresholded(
    "logistic_router",
    title="asks where a logistic regression on the router's features expects failure",
    colour="#44AA99",
    marker="p",
    line="-.",
    score_title=FAILURE,
    scorer="logistic",
    probabilistic=True,
)
STUCK = thresholded(
    "stuck_router",
    lambda features: features["state_seen"],
    title="asks where the agent is stuck: the state was shown before",
    colour="#999933",
    marker="h",
    line=":",
    score_title="Earlier steps that showed the same state",
)
FIRST_STEPS = thresholded(
    "first_steps_router",
    lambda features: 1.0 / (1.0 + features["step"]),
    title="asks at the first steps of every episode",
    colour="#AA4499",
    marker="d",
    line=":",
    score_title="1 / (1 + step)",
)
CASCADE = thresholded(
    "cascade_router",
    title="hands over the rest of the episode as soon as the router expects failure",
    colour="#661100",
    marker="H",
    line="-.",
    score_title="Highest probability of failure so far",
    scope="so_far",
)
EPISODE = thresholded(
    "episode_router",
    title="decides at the first step who plays the whole episode",
    colour="#777777",
    marker="8",
    line="-.",
    score_title="Probability of failure at the first step",
    scope="start",
)

BASELINES = (LOGPROB, CONSISTENCY, LOGISTIC, STUCK, FIRST_STEPS, CASCADE, EPISODE)
