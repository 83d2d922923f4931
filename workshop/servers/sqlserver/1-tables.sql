-- What suppliers charge the shop: the second source of changes. Every script here is safe to repeat.
IF DB_ID(N'pricing') IS NULL
    CREATE DATABASE pricing;
GO
-- The connector's first snapshot reads row versions, so that it locks no table.
ALTER DATABASE pricing SET ALLOW_SNAPSHOT_ISOLATION ON;
GO
USE pricing;
GO
IF OBJECT_ID(N'dbo.supplier', N'U') IS NULL
    CREATE TABLE dbo.supplier (
        supplier_id int NOT NULL CONSTRAINT supplier_key PRIMARY KEY,
        name nvarchar(80) NOT NULL,
        active bit NOT NULL CONSTRAINT supplier_active DEFAULT 1
    );
GO
IF OBJECT_ID(N'dbo.price_list', N'U') IS NULL
    CREATE TABLE dbo.price_list (
        supplier_id int NOT NULL CONSTRAINT price_list_supplier REFERENCES dbo.supplier,
        product_id int NOT NULL,
        price decimal(9, 2) NOT NULL CONSTRAINT price_list_positive CHECK (price > 0),
        currency char(3) NOT NULL CONSTRAINT price_list_currency DEFAULT 'USD',
        valid_from datetime2(3) NOT NULL CONSTRAINT price_list_from DEFAULT SYSUTCDATETIME(),
        CONSTRAINT price_list_key PRIMARY KEY (supplier_id, product_id)
    );
GO
