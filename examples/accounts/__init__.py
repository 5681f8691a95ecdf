"""Accounts: users with a name and an e-mail address, behind FastAPI.

Run it: `magnetar dev examples.accounts.pipeline`, and in a second terminal `uvicorn examples.accounts.api:app`.
"""
