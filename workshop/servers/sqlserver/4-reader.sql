-- The connector's login: it reads the two tables and their changes, and changes nothing.
USE master;
GO
IF SUSER_ID(N'debezium') IS NULL
    CREATE LOGIN debezium WITH PASSWORD = N'$(DEBEZIUM_PASSWORD)';
ELSE
    ALTER LOGIN debezium WITH PASSWORD = N'$(DEBEZIUM_PASSWORD)';
GRANT VIEW SERVER STATE TO debezium;  -- the connector asks whether SQL Server Agent runs
GO
USE pricing;
GO
IF USER_ID(N'debezium') IS NULL
    CREATE USER debezium FOR LOGIN debezium;
ALTER ROLE cdc_reader ADD MEMBER debezium;
GRANT SELECT ON dbo.supplier TO debezium;
GRANT SELECT ON dbo.price_list TO debezium;
GRANT SELECT ON SCHEMA::cdc TO debezium;
GO
