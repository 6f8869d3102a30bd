"""Sessions by signed token: the way of old engines and web pages to the proxy.

    token       verify a token, and read what it permits
    engine      the certificates of the engine that signs them
    sessions    what a token installs: a ticket of our own, for as long as the token lives

Knows nothing of HTTP requests.
"""
