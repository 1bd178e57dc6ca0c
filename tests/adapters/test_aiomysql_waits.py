"""What aiomysql waits for on hardsock's event loop ends, and what breaks off is an error."""

from __future__ import annotations

from adapters.database_contract import *
from adapters.mysql_client import MySQLClient

LIBRARY = MySQLClient("aiomysql", "pymysql.err")
