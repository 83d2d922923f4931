"""Authentication: who is calling, proven how, for how long, and how that ends.

JWT access tokens (RFC 9068), refresh tokens that rotate and tell when they were stolen (RFC 9700), sessions
that can be revoked within a second, one-time codes (RFC 6238) and step-up (RFC 9470).
"""
