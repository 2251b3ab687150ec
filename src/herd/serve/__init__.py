"""`herd serve`: a model behind OpenAI's HTTP API.

    app = create_app(backend, ServeSettings())        # herd.serve.app; any ASGI server runs it
    serve(app, settings)                              # herd.serve.server: uvicorn, with limits on slow clients

What speaks HTTP knows a model only through `Backend` (`backend.py`): ids in, ids out. `EngineBackend` is the embedded
engine in a thread of its own; another engine is another `Backend`. The server translates, it does not decide.
"""
