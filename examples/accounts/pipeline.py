"""The pipeline: the users' aggregate, and their present names as a table."""

from magnetar import Pipeline, Sql

from .user import User


class Names(Sql):
    """What each user is called at present."""

    select = "SELECT _id AS user, argMax(name, _version) AS name FROM NameChanged GROUP BY user"
    user: str
    name: str


accounts = Pipeline("accounts", aggregates=[User], projections=[Names])
