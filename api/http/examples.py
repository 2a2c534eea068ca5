"""Examples for the OpenAPI document: of each id that a path names, and of each body.

The ids are made up, yet of the form that ids have. A test puts existing ones in their place, sends
every example, and sees that what the document says comes back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CUSTOMER = "cus_01997d2e-5ca1-7c3a-9e0b-1f2a3b4c5d01"
OWNER = "per_01997d2e-5ca1-7c3a-9e0b-1f2a3b4c5d02"
COLLEAGUE = "per_01997d2e-5ca1-7c3a-9e0b-1f2a3b4c5d03"
TERRITORY = "ter_01997d2e-5ca1-7c3a-9e0b-1f2a3b4c5d04"
TRANSFER = "tra_01997d2e-5ca1-7c3a-9e0b-1f2a3b4c5d05"

OF_PATHS: Mapping[str, Any] = {
    "customer": CUSTOMER,
    "person": OWNER,
    "territory": TERRITORY,
    "transfer": TRANSFER,
    "approval": TRANSFER,
    "claim": 17,
    "request": 17,
    "number": 0,
    "year": 2026,
    "collaboration": "col_01997d2e-5ca1-7c3a-9e0b-1f2a3b4c5d06",
    "follow_up": "fol_01997d2e-5ca1-7c3a-9e0b-1f2a3b4c5d07",
    "deal": "dea_01997d2e-5ca1-7c3a-9e0b-1f2a3b4c5d08",
    "conflict": "con_01997d2e-5ca1-7c3a-9e0b-1f2a3b4c5d09",
    "hand_over": "han_01997d2e-5ca1-7c3a-9e0b-1f2a3b4c5d0a",
    "stand_in": "sta_01997d2e-5ca1-7c3a-9e0b-1f2a3b4c5d0b",
    "proposal": "pro_01997d2e-5ca1-7c3a-9e0b-1f2a3b4c5d0c",
    "job": "job_01997d2e-5ca1-7c3a-9e0b-1f2a3b4c5d0d",
    "token": "01997d2e5ca17c3a9e0b1f2a3b4c5d0e",
}
"""An example of what a path names, by the parameter's name."""

_VALUE = {"amount": "128000.00", "currency": "CNY"}
_CLAIM = {"customer": CUSTOMER, "note": "在展会上认识的"}
_TRANSFER = {
    "customer": CUSTOMER,
    "receiver": COLLEAGUE,
    "reason_code": "moved",
    "reason": "客户迁到另一个区",
    "value": _VALUE,
}
_HAND_OVER = {
    "giver": OWNER,
    "receivers": [COLLEAGUE],
    "plan": "all_to_one",
    "reason_code": "leaving",
    "reason": "离职交接",
}
_TERRITORY = {"name": "华东二区", "parent": TERRITORY, "head": COLLEAGUE}
_POLICY = {"holding_limit": 200, "daily_claim_limit": 20, "protection_days": 15}
_MAPPING = """
name = "list-1"

[constants]
time_zone = "Asia/Shanghai"
cut_over = 2024-01-01

[unknown]
people = "create"

[[files]]
file = "customers.csv"

[files.customer]
name = "客户名称"

[files.owner]
customer = "客户名称"
owner = "负责人"
"""

OF_BODIES: Mapping[str, Any] = {
    "register_customer": {
        "name": "华星电子有限公司",
        "identifiers": [{"system": "uscc", "value": "91310115MA1K3YJ12X"}],
        "foreign_ids": [{"system": "crm", "value": "A-1001"}],
        "territory": TERRITORY,
        "attributes": {"grade": "key", "employees": 120, "turnover": {"money": _VALUE}},
        "contacts": [{"name": "王芳", "phone": "13800000000", "role": "采购"}],
        "overrides": ["check_digit"],
    },
    "change_customer": {"name": "华星科技有限公司", "attributes": {"grade": "key"}},
    "release_customer": {"reason_code": "no_need", "reason": "客户今年没有预算"},
    "assign_customer": {"assignee": COLLEAGUE, "reason": "由本地同事跟进"},
    "file_claim": _CLAIM,
    "check_claim": _CLAIM,
    "request_collaboration": {"person": COLLEAGUE, "role": "presales", "share": "20.00"},
    "end_collaboration": {"reason_code": "done", "reason": "项目结束"},
    "log_follow_up": {
        "channel": "visit",
        "note": "看了样品",
        "agreed": "下周给报价",
        "next_on": "2026-03-09",
        "occurred": "2026-03-02T14:30:00+08:00",
    },
    "correct_follow_up": {"agreed": "月底给报价", "reason_code": "typo"},
    "void_follow_up": {"reason_code": "wrong_customer"},
    "record_deal": {"outcome": "won", "value": _VALUE, "product": "传感器"},
    "correct_deal": {"value": {"amount": "126000.00", "currency": "CNY"}, "reason_code": "typo"},
    "void_deal": {"reason_code": "cancelled", "reason": "合同取消"},
    "request_transfer": _TRANSFER,
    "check_transfer": _TRANSFER,
    "approve": {"comment": "同意"},
    "refuse": {"reason_code": "too_early", "comment": "先做完这个项目"},
    "withdraw": {"reason_code": "settled"},
    "answer_approvals": {"answers": [{"approval": TRANSFER, "answer": "approve"}]},
    "review": {"customer": CUSTOMER},
    "rule_on_conflict": {"ruling": "keep", "reason_code": "first_contact"},
    "order_hand_over": _HAND_OVER,
    "check_hand_over": _HAND_OVER,
    "name_stand_in": {"person": COLLEAGUE, "until": "2026-04-01"},
    "end_stand_in": {"reason_code": "ended"},
    "hold_recycling": {"until": "2026-04-01", "reason_code": "holiday"},
    "add_person": {
        "name": "李雷",
        "territory": TERRITORY,
        "roles": ["rep"],
        "joined_on": "2026-03-01",
        "email": "li.lei@example.com",
    },
    "change_person": {"territory": TERRITORY, "roles": ["rep", "manager"]},
    "person_left": {"left_on": "2026-04-01"},
    "person_returned": {"returned_on": "2026-05-01"},
    "person_away": {"from_day": "2026-03-09", "until_day": "2026-03-16"},
    "person_back": {"back_on": "2026-03-14"},
    "name_delegate": {
        "from_day": "2026-03-09",
        "until_day": "2026-03-16",
        "delegate": COLLEAGUE,
    },
    "end_delegate": {"ended_on": "2026-03-14"},
    "define_territory": _TERRITORY,
    "change_territory": {"name": "华东", "head": COLLEAGUE},
    "adopt_policy": {"policy": _POLICY, "comment": "从三月起"},
    "adopt_decider": {"version": 3},
    "require_four_eyes": {"required": False},
    "state_calendar": {
        "holidays": ["2026-01-01", "2026-01-02"],
        "workdays": ["2026-01-04"],
    },
    "ask_what_if": {"policy": _POLICY, "since": "2026-01-01T00:00:00+08:00"},
    "ask_import": {"mapping": _MAPPING, "file": ["客户名称,负责人\n华星,王芳\n"]},
    "unpark": {"decider": 3},
    "make_token": {"person": OWNER, "roles": ["rep"], "days": 90},
}
"""An example of what an operation takes, by its id."""
