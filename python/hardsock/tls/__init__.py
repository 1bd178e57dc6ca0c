"""TLS: configurations, and the faces that the ssl module's users expect."""
