"""Options of every technique, drawn from their JSON schemas, so that new techniques are covered."""

from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError


def values(schema: dict) -> st.SearchStrategy:
    """Everything the schema of one option allows."""
    if "anyOf" in schema:
        return st.one_of(*(values(choice) for choice in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    match schema.get("type"):
        case "integer":
            low, high = (
                schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1),
                schema.get("maximum"),
            )
            return st.integers(low, high if high is not None else low + 10**9)
        case "number":
            open_ = {
                f"exclude_{end}": True
                for end in ("min", "max")
                if f"exclusive{end.title()}imum" in schema
            }
            low, high = (
                schema.get(f"{end}imum", schema.get(f"exclusive{end.title()}imum"))
                for end in ("min", "max")
            )
            return st.floats(low, high, allow_nan=False, allow_infinity=False, **open_)
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "string":
            return st.text(
                min_size=schema.get("minLength", 0), max_size=min(schema.get("maxLength", 40), 40)
            )
        case "array":
            return st.lists(
                values(schema.get("items", {"type": "string"})),
                min_size=schema.get("minItems", 0),
                max_size=3,
            )
    return st.nothing()


def configs(model: type[BaseModel]) -> st.SearchStrategy:
    """Instances of a config; options that only together are refused are drawn again."""
    properties = model.model_json_schema()["properties"]
    return (
        st.fixed_dictionaries(
            {}, optional={name: values(schema) for name, schema in properties.items()}
        )
        .map(instance_or_none(model))
        .filter(bool)
    )


def instance_or_none(model):
    def instance(fields):
        try:
            return model(**fields)
        except ValidationError:
            return None

    return instance
