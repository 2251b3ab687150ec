"""What goes over the wire, as pydantic models: they check requests and describe the API (`/openapi.json`)."""
