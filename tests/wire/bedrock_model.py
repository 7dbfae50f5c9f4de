"""The service model of Amazon Bedrock that botocore ships: a judge of what we send and of the frames we test with."""

import re
from functools import cache

from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator


@cache
def service() -> ServiceModel:
    return ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"))


def faults(shape, value) -> list[str]:
    """What is wrong with `value`, as botocore sees it and, beyond that, by the model's patterns, enums and maxima."""
    report = ParamValidator().validate(value, shape)
    return ([report.generate_report()] if report.has_errors() else []) + list(_faults(shape, value, shape.name))


def _faults(shape, value, where):
    if shape.type_name == "structure" and not shape.is_document_type:
        for name, member in value.items():
            if name in shape.members:
                yield from _faults(shape.members[name], member, f"{where}.{name}")
    elif shape.type_name == "list":
        for index, item in enumerate(value):
            yield from _faults(shape.member, item, f"{where}[{index}]")
        value = range(len(value))
    elif shape.type_name == "map":
        for name, item in value.items():
            yield from _faults(shape.key, name, f"{where} key")
            yield from _faults(shape.value, item, f"{where}[{name!r}]")
    limits = shape.metadata
    size = value if isinstance(value, int | float) else len(value)
    if size > limits.get("max", size):
        yield f"{where}: {size} is more than {limits['max']}"
    if shape.type_name == "string":
        if "enum" in limits and value not in limits["enum"]:
            yield f"{where}: {value!r} is not one of {limits['enum']}"
        if "pattern" in limits and not re.fullmatch(limits["pattern"], value):
            yield f"{where}: {value!r} does not match {limits['pattern']}"
