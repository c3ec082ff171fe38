"""The operator's calls (stop, reset, lifecycle transitions, parameters) and words; no `ros2`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import String
from std_srvs.srv import Trigger

from safety_filter.nodes.qos import LATCHED
from safety_filter.nodes.tools import QUIET

TRIGGERS = ("stop", "reset")
TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
    "cleanup": Transition.TRANSITION_CLEANUP,
}
CONFIGURE = 120.0  # s: a filter compiles for up to a minute, and a policy loads
ABSENT = "does the node run, in this ROS_DOMAIN_ID and namespace, and may this enclave call it?"
BUSY = "it may still be at it, see its state"
SETTLED = 1.0  # s without a further reader: policy and perception are found one after the other


class CallError(RuntimeError):
    """A call was not answered; the message says what was waited for."""


class Operator:
    """Calls services of nodes in one namespace; a context manager."""

    def __init__(self, namespace: str = "", patience: float = 5.0) -> None:
        """patience: s until a service must be there, and again until it must have answered;
        `configure` has CONFIGURE for the latter."""
        self._context = Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = Node("operator", context=self._context, namespace=namespace, **QUIET)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._patience = patience

    def __enter__(self) -> Operator:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def call(self, name: str, what: str) -> tuple[bool, str]:
        """One of TRIGGERS or TRANSITIONS on node `name`; whether it was done, and its words.

        Raises:
            CallError: nobody answers.
        """
        if what in TRIGGERS:
            answer = self._ask(Trigger, f"{name}/{what}", Trigger.Request(), self._patience)
            return bool(answer.success), str(answer.message)
        request = ChangeState.Request(transition=Transition(id=TRANSITIONS[what]))
        patience = CONFIGURE if what == "configure" else self._patience
        done = bool(self._ask(ChangeState, f"{name}/change_state", request, patience).success)
        return done, f"{what}: {'done' if done else 'refused, see the state of the node'}"

    def set(self, name: str, values: Mapping[str, Any]) -> tuple[bool, str]:
        """Set parameters of node `name`, all or none; whether it was done, and its words.

        Raises:
            CallError: nobody answers.
        """
        rows = [Parameter(key, value=value).to_parameter_msg() for key, value in values.items()]
        request = SetParametersAtomically.Request(parameters=rows)
        service = f"{name}/set_parameters_atomically"
        result = self._ask(SetParametersAtomically, service, request, self._patience).result
        if "undeclared" in result.reason:  # rclpy does not say which
            text = f"not a parameter of {name}: one of {', '.join(values)}"
            return False, f"{text}; `safety-filter parameters {name}` lists them"
        return bool(result.successful), str(result.reason) or "set"

    def say(self, text: str, topic: str = "instruction") -> list[str]:
        """Publish the instruction `text` to all that read it now; the names of these nodes.

        Raises:
            CallError: nobody reads the topic, or a reader does not confirm that it came.
        """
        publisher = self.node.create_publisher(String, topic, LATCHED)
        full, count, since = publisher.topic_name, 0, time.monotonic()

        def settled() -> bool:
            nonlocal count, since
            if publisher.get_subscription_count() != count:
                count, since = publisher.get_subscription_count(), time.monotonic()
            return count > 0 and time.monotonic() - since > SETTLED

        try:
            self._spin_until(settled, f"nobody reads {full}", self._patience, ABSENT)
            publisher.publish(String(data=text))
            if not publisher.wait_for_all_acked(Duration(seconds=self._patience)):
                raise CallError(
                    f"{full}: not confirmed by all readers within {self._patience:g} s"
                )
            return sorted({i.node_name for i in self.node.get_subscriptions_info_by_topic(full)})
        finally:
            self.node.destroy_publisher(publisher)

    def _ask(self, kind: Any, service: str, request: Any, patience: float) -> Any:
        client = self.node.create_client(kind, service)
        full = self.node.resolve_service_name(service)
        self._spin_until(client.service_is_ready, f"no service {full}", self._patience, ABSENT)
        future = client.call_async(request)
        self._spin_until(future.done, f"no answer from {full}", patience, BUSY)
        return future.result()

    def _spin_until(self, done: Any, fault: str, patience: float, hint: str) -> None:
        end = time.monotonic() + patience
        while not done():
            if time.monotonic() > end:
                raise CallError(f"{fault} within {patience:g} s; {hint}")
            self._executor.spin_once(timeout_sec=0.05)
