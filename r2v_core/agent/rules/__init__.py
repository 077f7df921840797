"""Routing rules: who acts at a step. A rule looks at one step and answers with a risk score and a decision.

Each rule is one record (:class:`~r2v_core.agent.rules.base.RoutingRule`) in a module of this package, listed in
:mod:`~r2v_core.agent.rules.table`.
"""
